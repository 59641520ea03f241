package dovecot

type modernGrammar struct{ on bool }

func (m *modernGrammar) handle(r *reader, l *line) bool { return false }
func (m *modernGrammar) hint(key string) string { return "" }
