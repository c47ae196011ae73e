//! zyflow-checkout
