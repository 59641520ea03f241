// Package postfix reads main.cf and master.cf the way Postfix 3.7 reads them, and knows every parameter by name, type and default.
//
// It follows postconf(5) and master(5): continuation lines and comments, $name expansion with conditionals and comparisons, defaults
// that depend on compatibility_level, the -o overrides of a service, parameters made by a transport's name, and names an administrator
// invents and uses as $name. Every value remembers the file and line it came from.
//
// It does not know what a parameter does, opens no lookup table and starts nothing. The logic of the postconf command is in
// config/postfix/postconf.
package postfix
