//! Generates the message types with the pure-Rust code generator: no protoc needed.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .input("proto/mas/runtime/v1/runtime.proto")
        .input("proto/google/rpc/errors.proto")
        .cargo_out_dir("proto")
        .run_from_script();
}
