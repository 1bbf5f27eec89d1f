//! A directory of files as pages.

mod clients;
mod hostile;
mod nginx;
mod pages;
mod slow;
