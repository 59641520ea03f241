package dovecot

type oldGrammar struct{ baseDir string }

func (o *oldGrammar) handle(r *reader, l line) bool { return false }
