// Command command runs postmap and postalias alone, for tests: its first argument is the name. It reads plain
// "name = value" lines of main.cf, without expansion.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postilion/table"
	"postilion/table/tabletool"
)

type parameters map[string]string

func (p parameters) Value(name string) (string, bool) {
	value, ok := p[name]
	return value, ok
}

func load(dir string) (tabletool.Parameters, error) {
	p := parameters{}
	if dir == "" {
		return p, nil
	}
	path := filepath.Join(dir, "main.cf")
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, table.SystemError(err))
	}
	defer file.Close()
	err = table.ReadLines(file, func(l table.LogicalLine) error {
		name, value, _ := strings.Cut(l.Text, "=")
		p[strings.TrimSpace(name)] = strings.TrimSpace(value)
		return nil
	}, func(string) {})
	return p, err
}

func main() {
	in := tabletool.Invocation{Args: os.Args[2:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Load: load}
	if os.Args[1] == "postalias" {
		os.Exit(tabletool.Postalias(in))
	}
	os.Exit(tabletool.Postmap(in))
}
