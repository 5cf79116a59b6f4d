//! The room from outside: whole policies in, decisions and mistakes out.
