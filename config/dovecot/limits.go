package dovecot

// Limits of what is read. Real configurations stay below a hundredth of each.
const (
	MaxFileSize     = 4 << 20  // octets of one configuration file or "<file" value
	MaxLineLength   = 1 << 20  // octets of one logical line
	MaxFiles        = 2000     // files of one configuration
	MaxIncludeDepth = 32       // files that include each other
	MaxSectionDepth = 16       // sections inside each other
	MaxSettings     = 100_000  // lines that set something
	MaxValueLength  = 1 << 20  // octets of a value after expansion
	MaxDiagnostics  = 1000     // mistakes listed; later ones are dropped
	MaxExpandLength = 64 << 10 // octets of the result of Expand
)
