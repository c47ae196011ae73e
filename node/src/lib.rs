//! zyflow-node
