//! validateOnly runs every check and changes nothing.
