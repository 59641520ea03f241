package tabletool

import (
	"context"
	"fmt"

	"postilion/table"
)

// query looks keys up; the exit status tells whether any was found. A single key is answered by its value, keys from
// standard input by key and value.
func (c *command) query(key string) error {
	ctx := context.Background()
	if key != "-" {
		for _, file := range c.files {
			t, err := table.Open(c.spec(file), c.tableOptions())
			if err != nil {
				return err
			}
			value, found, err := c.lookup(ctx, t, key)
			if err != nil {
				return err
			}
			if found {
				_, err = c.out.WriteString(value + "\n")
				return err
			}
		}
		return notFound
	}
	var tables []table.Table
	for _, file := range c.files {
		t, err := table.Open(c.spec(file), c.tableOptions())
		if err != nil {
			return err
		}
		tables = append(tables, t)
	}
	any := false
	answer := func(key string) error {
		for _, t := range tables {
			value, found, err := c.lookup(ctx, t, key)
			if err != nil {
				return err
			}
			if found {
				any = true
				_, err = c.out.WriteString(key + "\t" + value + "\n")
				return err
			}
		}
		return nil
	}
	err := c.keys(answer)
	if err == nil && !any {
		return notFound
	}
	return err
}

// keys reads keys from standard input: lines, or with -b and -h the parts of a message.
func (c *command) keys(answer func(string) error) error {
	if !c.set['b'] && !c.set['h'] {
		return c.forKeys("-", answer)
	}
	m := message{mime: c.set['m'], header: answer, body: answer}
	if !c.set['h'] {
		m.header = func(string) error { return nil }
	}
	if !c.set['b'] {
		m.body = func(string) error { return nil }
	}
	return m.read(c.in.Stdin)
}

func (c *command) lookup(ctx context.Context, t table.Table, key string) (string, bool, error) {
	value, found, err := t.Lookup(ctx, key)
	if err != nil {
		return "", false, err
	}
	if found && value == "" {
		c.warn(fmt.Sprintf("table %s: key %s: empty string result is not allowed", t.Spec(), table.Printable(key)))
		c.warn(fmt.Sprintf("table %s should return NO RESULT in case of NOT FOUND", t.Spec()))
	}
	return value, found, nil
}
