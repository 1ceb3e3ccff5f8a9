//! One file a command.

pub mod adopt;
pub mod audit;
pub mod doctor;
pub mod init;
pub mod keys;
pub mod preview;
pub mod run;
pub mod seal;
pub mod status;
pub mod test;
