//! Grants, and the credits that they hold.

use super::{
    Broken, ServerChecks, Verdict, ensure,
    sample::{Flag, Sample, name},
};
use crate::{Grant, Prepared, Server, Target};

pub(super) const CHECKS: ServerChecks = &[
    ("a grant is for at least one block and one segment", at_least_one),
    ("credits come back when their grant is dropped, and who waits is woken", come_back),
];

fn at_least_one(server: &dyn Server) -> Verdict {
    let target = Sample::new(server)?.create(server, &name("a")?)?;
    let (_, waker) = Flag::new();
    for block in [0, 1, 63, 64, 1000, 1 << 40] {
        let Prepared::Granted(grant) = target.prepare(block, &waker) else {
            ensure!(false, "nothing is granted where no grant is held");
            continue;
        };
        ensure!(grant.max_segments > 0, "no segment is granted");
        let is_beyond = grant.boundary.is_none_or(|boundary| boundary > block);
        ensure!(is_beyond, "the boundary {:?} is not beyond block {block}", grant.boundary);
    }
    Ok(())
}

fn come_back(server: &dyn Server) -> Verdict {
    let target = Sample::new(server)?.create(server, &name("a")?)?;
    let (flag, waker) = Flag::new();
    let Some(mut grants) = exhaust(&*target, &waker) else { return Ok(()) };
    let n_grants = grants.len();
    ensure!(n_grants > 0, "nothing is granted where no grant is held");
    drop(grants.pop());
    flag.wait()?;
    let Prepared::Granted(grant) = target.prepare(0, &waker) else {
        return Err(Broken("a credit that came back is not granted again".to_owned()));
    };
    drop((grant, grants));
    let again = exhaust(&*target, &waker).map_or(0, |grants| grants.len());
    ensure!(again == n_grants, "{n_grants} grants were to be had at first, then {again}");
    Ok(())
}

/// Takes grants until there are no more; `None` if there seem to be any number.
fn exhaust(target: &dyn Target, waker: &std::task::Waker) -> Option<Vec<Grant>> {
    let mut grants = Vec::new();
    for _ in 0..ENOUGH {
        match target.prepare(0, waker) {
            Prepared::Granted(grant) => grants.push(grant),
            Prepared::Later => return Some(grants),
        }
    }
    None
}

/// A target that grants so many at once counts as one without credits.
const ENOUGH: usize = 10_000;
