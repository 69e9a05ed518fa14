//! ROM images of emu (none yet).
