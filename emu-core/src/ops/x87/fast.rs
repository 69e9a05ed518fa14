//! Specialised handlers of x87 instructions.
