//! zyflow-spec
