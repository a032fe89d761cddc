//! The edge: who gets in, what clients may do to the server before it knows what they want, and that others do not
//! notice.

mod bytes;
mod floods;
mod honest;
mod raw;
mod refusals;
mod room;
