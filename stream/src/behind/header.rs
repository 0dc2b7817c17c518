//! The header of a log's file: the newest that was seen of the server's.

use sealback_crypto::{HEADER_BYTES, HeaderClaims};

use super::{
    home::is_away,
    log::{WriteLog, unless_full},
};
use crate::TargetError;

impl WriteLog {
    /// The header that the server had when it last answered.
    pub fn header(&self) -> Box<[u8; HEADER_BYTES]> {
        self.state().header.clone()
    }

    /// The header as the server has it, or had it when it last answered.
    pub(super) fn read_header(&self) -> Result<Vec<u8>, TargetError> {
        let header = match self.ask(|server| server.read_header()) {
            Ok(header) => header,
            Err(error) if is_away(&error) => {
                return Ok(self.state().header.to_vec());
            }
            Err(error) => return Err(error),
        };
        self.keep_header(&header)?;
        Ok(header)
    }

    /// Keeps the header, if it is whole and newer, as the one that the server has: what is sealed from here on may
    /// be judged by this one when nobody answers.
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be kept.
    pub fn keep_header(&self, header: &[u8]) -> Result<(), TargetError> {
        let Some(header) = header.first_chunk::<HEADER_BYTES>() else { return Ok(()) };
        let mut state = self.state();
        let [kept, new] =
            [&*state.header, header].map(|header| HeaderClaims::of(header).generation);
        // Two may have asked, and the one that asked first may come last.
        if new > kept {
            unless_full(self.home.files().keep_header(&self.stem, self.name(), header))?;
            *state.header = *header;
        }
        Ok(())
    }

    /// Notes that the server has an older header than it had: it has gone back to an earlier state.
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be kept.
    pub fn put_back(&self, header: &[u8; HEADER_BYTES]) -> Result<(), TargetError> {
        let mut state = self.state();
        unless_full(self.home.files().keep_header(&self.stem, self.name(), header))?;
        *state.header = *header;
        Ok(())
    }
}
