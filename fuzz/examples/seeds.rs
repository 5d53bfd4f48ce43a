//! Writes inputs to start from into `corpus/TARGET/` of the folder that it is run in.

use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    for (n, (target, input)) in rpc_fuzz::seeds().enumerate() {
        let folder = Path::new("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{n}")), input)?;
    }
    Ok(())
}
