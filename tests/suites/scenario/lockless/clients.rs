//! What a client of several does, and a server that takes its time now and then.

use std::{sync::Arc, thread, time::Duration};

use fastrand::Rng;
use sealback::{Error, File};
use sealback_stream::{Completion, Read, ReadCompletion, Server, Target, TargetError, Write};
use sealback_tests::interpose::Hook;

use super::{
    Plan,
    history::{CELL, History, N_CELLS},
};
use crate::support::{engine_with, open};

const N_STEPS: usize = 40;

/// Holds operations up, so that others come between.
#[derive(Debug)]
pub(super) struct Haste;

impl Haste {
    fn wait() {
        match fastrand::u32(..8) {
            0 => thread::sleep(Duration::from_micros(fastrand::u64(..300))),
            1 | 2 => thread::yield_now(),
            _ => {}
        }
    }
}

impl Hook for Haste {
    fn write(&self, target: &Arc<dyn Target>, write: Write, done: Completion) {
        Haste::wait();
        target.write(write, done);
    }

    fn read(&self, target: &Arc<dyn Target>, read: Read, done: ReadCompletion) {
        target.read(read, done);
        Haste::wait();
    }

    fn ask(&self) -> Result<(), TargetError> {
        Haste::wait();
        Ok(())
    }

    fn control(
        &self,
        change: &mut dyn FnMut() -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        Haste::wait();
        change()
    }
}

/// One client of several.
pub(super) struct Client<'a> {
    plan: Plan,
    history: &'a History,
    number: usize,
    rng: Rng,
    file: File,
    /// What each of its cells was given last.
    values: Vec<u8>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        server: &dyn Server,
        plan: Plan,
        history: &'a History,
        number: usize,
        seed: u64,
    ) -> Client<'a> {
        let mut rng = Rng::with_seed(seed * 16 + number as u64);
        let folio_bytes = [4096, 16 << 10, 64 << 10][rng.usize(..3)];
        let file = open(&engine_with(folio_bytes), server, None);
        Client { plan, history, number, rng, file, values: vec![0; N_CELLS] }
    }

    pub(super) fn run(mut self) {
        for _ in 0..N_STEPS {
            self.step();
        }
        // What has failed before is told of once.
        while told(self.file.sync()) {}
        self.sync();
        self.file.close().unwrap();
    }

    fn draw_cell(&mut self) -> usize {
        let n_clients = self.plan.n_clients;
        self.rng.usize(..N_CELLS / n_clients) * n_clients + self.number
    }

    fn step(&mut self) {
        let drawn = self.rng.u32(..100);
        if drawn < self.plan.cuts {
            self.cut();
        } else if drawn < self.plan.cuts + self.plan.punches {
            self.punch();
        } else {
            match self.rng.u32(..10) {
                0..5 => self.write(|file, at, cell| file.write_at(at, &cell)),
                5 => self.write(|file, at, cell| file.write_direct(at, cell).result),
                6 => self.write(|file, at, cell| {
                    let mut writing = file.writethrough(at)?;
                    writing.advance(&cell)?;
                    writing.end()
                }),
                7 => self.read(),
                8 => drop(self.file.writeback()),
                _ => self.sync(),
            }
        }
    }

    fn write(&mut self, write: impl Fn(&File, u64, Vec<u8>) -> Result<(), Error>) {
        let cell = self.draw_cell();
        let value = self.values[cell] % 255 + 1;
        self.values[cell] = value;
        let at = (cell * CELL) as u64;
        self.history.write(self.number, cell, value, || {
            // Somebody has cut off what was there before.
            while told(write(&self.file, at, vec![value; CELL])) {}
        });
    }

    fn punch(&mut self) {
        let cell = self.draw_cell();
        let at = (cell * CELL) as u64;
        self.history
            .write(self.number, cell, 0, || while told(self.file.punch(at..at + CELL as u64)) {});
    }

    fn cut(&mut self) {
        let size = usize::try_from(self.file.size()).unwrap();
        let len = self.rng.usize(..=size);
        self.history.cut(self.number, len, || while told(self.file.set_len(len as u64)) {});
    }

    fn sync(&mut self) {
        self.history.sync(self.number, || !told(self.file.sync()));
    }

    fn read(&mut self) {
        let cell = self.draw_cell();
        let mut bytes = vec![0; CELL];
        let at = cell * CELL;
        let len = self.file.read_at(at as u64, &mut bytes).unwrap();
        self.history.check_part(at, &bytes[..len]).unwrap();
    }
}

/// Whether it was told that somebody else has cut the file, and took what was sent here, or that others keep
/// changing the same blocks, and that it is to be tried again; nothing else may fail.
#[track_caller]
fn told(result: Result<(), Error>) -> bool {
    let may_be = matches!(result, Ok(()) | Err(Error::Cut { .. } | Error::Conflict { .. }));
    assert!(may_be, "{result:?}");
    result.is_err()
}
