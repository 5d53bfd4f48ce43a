//! Writes the code of the neighbours that have a schema. No compiler but cargo's is needed: tonic's schema is parsed by
//! `protox`, that of ttrpc by its own generator, and capnp's is there as its compiler left it.

use std::path::PathBuf;

/// `capnp compile -o- --src-prefix=schema schema/echo.capnp | xxd -p -c 60 > schema/echo.capnp.hex`
const CAPNP: &str = "schema/echo.capnp.hex";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=schema");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let files = protox::compile(["schema/echo.proto"], ["schema"])?;
    tonic_prost_build::configure().bytes(".").btree_map(".").out_dir(&out).compile_fds(files)?;

    let ttrpc = out.join("ttrpc");
    std::fs::create_dir_all(&ttrpc)?;
    ttrpc_codegen::Codegen::new()
        .out_dir(&ttrpc)
        .input("schema/echo.proto")
        .include("schema")
        .rust_protobuf()
        .customize(ttrpc_codegen::Customize { async_all: true, gen_mod: true, ..Default::default() })
        .rust_protobuf_customize(ttrpc_codegen::ProtobufCustomize::default().gen_mod_rs(true))
        .run()?;
    // Its files begin with attributes, and such are modules and cannot be included.
    let module = ttrpc.join("mod.rs");
    std::fs::write(out.join("ttrpc.rs"), format!("#[allow(clippy::all)]\n#[path = {module:?}]\nmod schema;\n"))?;

    capnpc::codegen::CodeGenerationCommand::new()
        .output_directory(&out)
        .default_parent_module(vec!["systems".to_owned(), "capnp".to_owned()])
        .run(&from_hex(&std::fs::read_to_string(CAPNP)?)?[..])?;
    Ok(())
}

fn from_hex(text: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
