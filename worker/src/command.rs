//! One file a command.

pub mod adopt;
pub mod audit;
pub mod completions;
mod confirm;
pub mod doctor;
pub mod init;
pub mod keys;
pub mod man;
mod moment;
pub mod preview;
pub mod replay;
pub mod retry;
pub mod run;
pub mod seal;
pub mod status;
pub mod test;
