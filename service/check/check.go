// Package check x.
package check
