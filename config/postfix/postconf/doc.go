// Package postconf is the logic of the postconf command: it shows and edits main.cf and master.cf as postconf(1) of Postfix 3.7 does,
// with the same options, output and warnings.
//
// It reads by config/postfix, keeps no state, and replaces a file that it edits by an atomic rename.
package postconf
