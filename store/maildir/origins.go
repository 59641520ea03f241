package maildir

import "context"

// LoadOrigins implements store.Origins: the names are there.
func (v *view) LoadOrigins(context.Context) error { return nil }

// Filename returns the base name of a message's file, which Dovecot's POP3 server can make unique identifiers of.
func (v *view) Filename(index int) string { return v.messages[index].base }

// GUID returns a message's global identifier as Dovecot knows it: the G word of its record in dovecot-uidlist, else the base name.
func (v *view) GUID(index int) string { return v.messages[index].guid }
