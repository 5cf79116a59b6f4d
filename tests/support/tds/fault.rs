//! Errors as SQL Server numbers them, and the other ways in which a statement ends early.

/// An error of a statement.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) number: i32,
    pub(crate) class: u8,
    pub(crate) state: u8,
    pub(crate) text: String,
    /// Nothing behind it in the batch is run.
    pub(crate) aborts: bool,
}

impl Fault {
    pub(crate) fn new(number: i32, class: u8, text: impl Into<String>) -> Self {
        Self {
            number,
            class,
            state: 1,
            text: text.into(),
            aborts: false,
        }
    }

    pub(crate) fn aborting(self) -> Self {
        Self { aborts: true, ..self }
    }

    pub(crate) fn syntax(near: &str) -> Self {
        Self::new(102, 15, format!("Incorrect syntax near '{near}'.")).aborting()
    }

    pub(crate) fn no_object(name: &str) -> Self {
        Self::new(208, 16, format!("Invalid object name '{name}'.")).aborting()
    }

    pub(crate) fn no_column(name: &str) -> Self {
        Self::new(207, 16, format!("Invalid column name '{name}'.")).aborting()
    }

    pub(crate) fn no_principal(kind: &str, name: &str, verb: &str) -> Self {
        let text = format!(
            "Cannot {verb} the {kind} '{name}', because it does not exist or you do not have permission."
        );
        Self::new(15151, 16, text)
    }

    pub(crate) fn forbidden(text: impl Into<String>) -> Self {
        let fault = Self::new(229, 14, text);
        Self { state: 5, ..fault }
    }
}

/// Why a batch is not run on.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Fault(Fault),
    /// The client sent an attention, or has gone.
    Cancelled,
    Return(i32),
    /// An error was told and ends the batch.
    Aborted,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
