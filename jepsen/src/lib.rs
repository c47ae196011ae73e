//! zyflow-jepsen
