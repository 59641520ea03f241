package service

import (
	"path/filepath"

	"postilion/config/dovecot"
	"postilion/config/postfix"
)

// PostfixPidFile is where the process that serves main.cf says its number, as Postfix's master does.
func PostfixPidFile(view *postfix.View) string {
	return filepath.Join(view.String("queue_directory"), "pid", "master.pid")
}

// DovecotPidFile is where the process that serves dovecot.conf says its number.
func DovecotPidFile(view *dovecot.View) string {
	return filepath.Join(view.String("base_dir"), "master.pid")
}

// PidFiles are the files in which this server's process number belongs.
func (s *Server) PidFiles() []string { return s.pidFiles }

func (b *builder) pidFiles() []string {
	var files []string
	if b.postfix != nil {
		files = append(files, PostfixPidFile(b.postfix.View()))
	}
	if b.dovecot != nil {
		files = append(files, DovecotPidFile(b.dovecot.For(dovecot.Filter{})))
	}
	return files
}
