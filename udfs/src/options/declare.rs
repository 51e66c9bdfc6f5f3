//! The macro behind the table of options.

/// Declares the struct of options, a setter for each, and their [`OptionDeclaration`](super::OptionDeclaration)s.
///
/// Each entry reads `name: type as kind { .. }`. Its documentation serves the field, SQL and the command line, so it is
/// plain text without links. Everything that handles options goes through the declarations; nothing else lists them.
macro_rules! declare_options {
    (
        $(#[$meta:meta])*
        pub struct $options:ident {
            $(
                $(#[doc = $documentation:literal])+
                $name:ident: $type:ty as $kind:ty {
                    default: $default:literal,
                    families: $families:expr,
                    in_graph: $in_graph:literal,
                    flag: $flag:literal,
                    setter: $setter:ident($argument:ty),
                    $(alias: $alias:literal,)?
                }
            )+
        }
    ) => {
        $(#[$meta])*
        pub struct $options {
            $(
                $(#[doc = $documentation])+
                #[doc = concat!(" Default: ", $default, ".")]
                pub $name: Option<$type>,
            )+
        }

        impl $options {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](field@Self::", stringify!($name), "). The value is \
                    checked where the options are used, or by [`Self::validate`].")]
                #[must_use]
                pub fn $setter(self, value: $argument) -> Self {
                    Self { $name: Some(value.into()), ..self }
                }
            )+

            /// Every option, in the order of the fields.
            pub fn declarations() -> &'static [OptionDeclaration] {
                const DECLARATIONS: &[OptionDeclaration] = &[$(
                    OptionDeclaration {
                        name: stringify!($name),
                        documentation: concat!($($documentation),+).trim_ascii(),
                        default: $default,
                        kind: <$kind as ReadValue>::KIND,
                        families: $families,
                        in_graph: $in_graph,
                        flag: $flag,
                        aliases: &[$($alias)?],
                        get: |options| options.$name.as_ref().map(<$kind as ReadValue>::write),
                        set: |options, name, value| {
                            options.$name = match value {
                                Value::Null => None,
                                value => Some(<$kind as ReadValue>::read(name, value)?),
                            };
                            Ok(())
                        },
                        inherit: |options, defaults| {
                            if options.$name.is_none() {
                                options.$name.clone_from(&defaults.$name);
                            }
                        },
                    },
                )+];
                DECLARATIONS
            }
        }

        /// Every option's name, in the order of [`ScoreOptions`].
        pub const OPTION_NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

pub(super) use declare_options;
