//! The compiled tiers of emu (none yet).
