//! zyflow-raft
