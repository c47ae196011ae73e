//! zyflow-api
