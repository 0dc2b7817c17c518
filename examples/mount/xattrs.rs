//! Extended attributes: the lower file's, as they are.

use std::ffi::OsStr;

use fuser::INodeNo;
use rustix::{
    fs::{XattrFlags, fgetxattr, getxattr, listxattr, removexattr, setxattr},
    io::Errno,
};

use crate::{errors::Result, inodes::Inode, lower, tree::Tree};

/// Reading this attribute of the root gives the mount's statistics.
pub(crate) const STATISTICS: &str = "user.sealback.statistics";

impl Tree {
    /// Reads an attribute.
    pub(crate) fn read_xattr(&self, number: INodeNo, name: &OsStr) -> Result<Vec<u8>> {
        let inode = self.inodes.get(number)?;
        if inode.is_root() && name == STATISTICS {
            return Ok(self.statistics().into_bytes());
        }
        let path = self.path_for(&inode, name)?;
        match inode.content.lower() {
            // The kernel asks for one of each file that is written to, or given to somebody.
            Some(lower) => read_all(|buffer| fgetxattr(&*lower, name, buffer)),
            None => read_all(|buffer| getxattr(&path, name, buffer)),
        }
    }

    /// The names of all attributes, each with a zero byte behind it.
    pub(crate) fn list_xattrs(&self, number: INodeNo) -> Result<Vec<u8>> {
        let inode = self.inodes.get(number)?;
        if inode.kind.is_symlink() {
            return Ok(Vec::new());
        }
        let path = lower::path_of(&inode.reference);
        let names = read_all(|buffer| listxattr(&path, buffer))?;
        let names = names.split_inclusive(|byte| *byte == 0);
        Ok(names.filter(|name| !is_of_system(name)).flatten().copied().collect())
    }

    /// Sets an attribute.
    pub(crate) fn set_xattr(
        &self,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        let inode = self.inodes.get(number)?;
        let path = self.path_for(&inode, name)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        setxattr(path, name, value, flags)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&self, number: INodeNo, name: &OsStr) -> Result<()> {
        let inode = self.inodes.get(number)?;
        removexattr(self.path_for(&inode, name)?, name)
    }

    /// Where an attribute of a file is set and read.
    fn path_for(&self, inode: &Inode, name: &OsStr) -> Result<String> {
        // Symbolic links have only attributes that no path leads to.
        if is_of_system(name.as_encoded_bytes()) || inode.kind.is_symlink() {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(lower::path_of(&inode.reference))
    }
}

/// Access control lists, of whatever kind. The kernel would not keep to them, and must not look as if it did; and it
/// lets everybody set them, and leaves it to the file system to refuse that, which below knows only who runs this.
fn is_of_system(name: &[u8]) -> bool {
    name.starts_with(b"system.")
}

/// Reads something whose size may change meanwhile.
fn read_all(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(n_bytes) => {
                buffer.truncate(n_bytes);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < MOST => buffer.resize(buffer.len() * 16, 0),
            Err(error) => return Err(error),
        }
    }
}

/// More than the kernel allows for.
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_control_lists_of_whatever_kind_are_not_for_everybody_to_set() {
        for name in ["posix_acl_access", "posix_acl_default", "nfs4_acl", "cifs_acl", "richacl"] {
            assert!(is_of_system(format!("system.{name}").as_bytes()));
        }
        for name in ["user.system.", "security.capability", "trusted.overlay.opaque"] {
            assert!(!is_of_system(name.as_bytes()));
        }
    }
}
