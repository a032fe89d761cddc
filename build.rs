//! Generates the message types from `proto/` with the pure-Rust code generator: no protoc needed.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .input("proto/mas/runtime/v1/runtime.proto")
        .input("proto/google/rpc/errors.proto")
        .input("proto/grpc/health/v1/health.proto")
        .cargo_out_dir("proto")
        .run_from_script();
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .input("proto/otlp/otlp.proto")
        .cargo_out_dir("otlp")
        .run_from_script();
}
