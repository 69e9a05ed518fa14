//! Specialised handlers of scalar and packed floating-point instructions.
