//! Compiles the `.proto` files with a compiler written in Rust, so that no `protoc` has to be installed.

use std::error::Error;

const PROTOS: [&str; 8] = [
    "proto/zyflow/v1/types.proto",
    "proto/zyflow/v1/propose.proto",
    "proto/zyflow/v1/query.proto",
    "proto/zyflow/v1/watch.proto",
    "proto/zyflow/v1/replay.proto",
    "proto/zyflow/v1/admin.proto",
    "proto/zyflow/v1/backup.proto",
    "proto/zyflow/v1/join.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let large = [".zyflow.v1.QueryResponse.answer.task", ".zyflow.v1.QueryResponse.answer.conflict"];
    let builder = large.into_iter().fold(tonic_prost_build::configure(), tonic_prost_build::Builder::boxed);
    builder.compile_fds(descriptors)?;
    Ok(())
}
