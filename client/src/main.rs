//! The `zyflow` binary: everything is in [`zyflow_client::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    zyflow_client::cli::main()
}
