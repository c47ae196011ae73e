//! zyflow-client
