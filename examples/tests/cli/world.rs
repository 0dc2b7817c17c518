//! A directory with a server, a cache and a key, and the program to run in it.

use std::{
    env, fs,
    io::Write,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// The header, and what stands before each block's ciphertext.
pub(crate) const HEADER: usize = 8192;
pub(crate) const PREFIX: usize = 48;

/// The world's server and key.
pub(crate) const AT: [&str; 4] = ["--server", "server", "--key", "key"];

/// Where a test takes place.
pub(crate) struct World {
    dir: TempDir,
    /// The program runs as this user, if not as the tests' own.
    user: Option<u32>,
}

impl World {
    /// A server, an empty cache directory, and a key in `key`.
    pub(crate) fn new() -> World {
        let world = World { dir: tempfile::tempdir().unwrap(), user: None };
        fs::create_dir(world.path("server")).unwrap();
        fs::create_dir(world.path("cache")).unwrap();
        world.run(&["keygen", "key"]).succeeds();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The stored file of a name.
    pub(crate) fn stored(&self, name: &str) -> PathBuf {
        self.path("server").join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// The same world with everything owned, and the program run, by a user whom permissions bind;
    /// says so where there is none, and the test is skipped. `source` must be there.
    pub(crate) fn unprivileged(mut self) -> Option<World> {
        const NOBODY: u32 = 65534;
        self.allow("source", 0);
        if fs::read(self.path("source")).is_ok() {
            own(self.dir.path(), NOBODY);
            self.user = Some(NOBODY);
        }
        self.allow("source", 0o600);
        // The program itself may lie where nobody else gets to.
        let runs = self.command(&["--version"]).output().is_ok();
        if !runs {
            println!("skipped: permissions do not bind this user, and no other can be had");
        }
        runs.then_some(self)
    }

    /// Sets a path's permissions.
    pub(crate) fn allow(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the program in the directory.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(args, &self.command(args).output().unwrap())
    }

    /// Runs a command with the world's server and key.
    pub(crate) fn on(&self, args: &[&str]) -> Outcome {
        self.run(&[args, &AT].concat())
    }

    /// As `on`, with the given standard input.
    pub(crate) fn on_with(&self, args: &[&str], stdin: &[u8]) -> Outcome {
        self.run_with(&[args, &AT].concat(), stdin)
    }

    /// Writes `bytes` over a name at `offset`, which must succeed.
    pub(crate) fn patch_bytes(&self, name: &str, bytes: &[u8], offset: usize, further: &[&str]) {
        self.write("source", bytes);
        let offset = offset.to_string();
        self.on(&[&["patch", name, "source", "--offset", &offset], further].concat()).succeeds();
    }

    /// Runs the program with the given standard input.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Outcome {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Outcome::of(args, &child.wait_with_output().unwrap())
    }

    /// Puts the file `src` under the name `name`, with further arguments.
    pub(crate) fn put(&self, src: &str, name: &str, further: &[&str]) -> Outcome {
        self.on(&[&["put", src, "--name", name], further].concat())
    }

    /// Puts bytes, which must succeed.
    pub(crate) fn put_bytes(&self, bytes: &[u8], name: &str, further: &[&str]) {
        self.write("source", bytes);
        self.put("source", name, further).succeeds();
    }

    /// Gets a name into the file `out`, with further arguments.
    pub(crate) fn get(&self, name: &str, further: &[&str]) -> Outcome {
        self.on(&[&["get", name, "--out", "out"], further].concat())
    }

    /// Gets a name, which must succeed.
    pub(crate) fn get_bytes(&self, name: &str, further: &[&str]) -> Vec<u8> {
        let _ = fs::remove_file(self.path("out"));
        self.get(name, further).succeeds();
        self.read("out")
    }

    pub(crate) fn verify(&self, name: &str) -> Outcome {
        self.on(&["verify", name])
    }

    pub(crate) fn inspect(&self, name: &str) -> Outcome {
        self.on(&["inspect", name, "--json"])
    }

    /// Asserts that the server holds these names, its own directory, and no draft.
    pub(crate) fn holds_only(&self, names: &[&str]) {
        let mut expected: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        let found = names_in(&self.path("server"));
        let found: Vec<_> = found.into_iter().filter(|name| name != ".sealback").collect();
        assert_eq!(found, expected);
        let beside = self.path("server/.sealback");
        let beside = if beside.exists() { names_in(&beside) } else { Vec::new() };
        let lasts = |name: &String| {
            let is_empty = || self.read(&format!("server/.sealback/{name}")).is_empty();
            name.ends_with(".reserve")
                || name.ends_with(".lock")
                || name == "identity"
                || (name.ends_with(".journal") || name.ends_with(".size")) && is_empty()
        };
        assert!(beside.iter().all(lasts), "beside the files: {beside:?}");
    }
}

/// How a run ended.
pub(crate) struct Outcome {
    shown: String,
    status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(args: &[&str], output: &Output) -> Outcome {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{args:?} panicked: {stderr}");
        let (status, stdout) = (output.status.code(), output.stdout.clone());
        Outcome { shown: format!("{args:?}"), status, stdout, stderr }
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts status 0 and nothing on standard error.
    pub(crate) fn succeeds(self) -> Outcome {
        let Outcome { shown, status, stderr, .. } = &self;
        assert_eq!((*status, stderr.as_str()), (Some(0), ""), "{shown}");
        self
    }

    /// Asserts status 1 and one line on standard error that says one of `meanings`.
    pub(crate) fn fails(self, meanings: &[&str]) -> Outcome {
        let Outcome { shown, status, stderr, .. } = &self;
        assert_eq!(*status, Some(1), "{shown}: {stderr}");
        assert!(stderr.starts_with("writeback: ") && stderr.ends_with('\n'), "{shown}: {stderr:?}");
        assert_eq!(stderr.lines().count(), 1, "{shown}: {stderr:?}");
        let says = |meaning: &&str| stderr.to_lowercase().contains(&meaning.to_lowercase());
        assert!(meanings.iter().any(says), "{shown}: {stderr:?} says none of {meanings:?}");
        self
    }

    /// Asserts status 2 and a standard error that says `meaning`.
    pub(crate) fn misuses(self, meaning: &str) {
        let Outcome { shown, status, stderr, .. } = &self;
        assert_eq!(*status, Some(2), "{shown}: {stderr}");
        assert!(stderr.contains(meaning), "{shown}: {stderr:?} does not say {meaning:?}");
        assert!(self.stdout.is_empty(), "{shown}");
    }

    /// The JSON object that is all of standard output.
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = self.stdout();
        assert_eq!(text.lines().count(), 1, "{}: {text:?}", self.shown);
        serde_json::from_str(&text).unwrap()
    }
}

/// Bytes that look random and are the same in every run.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Gives a directory and all in it to a user.
fn own(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path(), user));
    }
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> =
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The example beside this test: `target/<profile>/examples/writeback`.
pub(crate) fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join("writeback");
    assert!(program.exists(), "{} has not been built", program.display());
    program
}
