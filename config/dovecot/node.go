package dovecot

import "fmt"

// Position is where something was written. Line 0 is the file as a whole; an empty File is a default of Dovecot's.
type Position struct {
	File string
	Line int
}

func (p Position) String() string {
	switch {
	case p.File == "":
		return "default"
	case p.Line == 0:
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// value is what a setting was set to. A "<file" value has the name of the file as path; its text is what doveconf shows.
type value struct {
	text     string
	path     string
	contents string
	fileErr  error
	pos      Position
}

func (v value) string() string {
	if v.path != "" {
		return v.contents
	}
	return v.text
}

// node is a section with what was set in it. Sections of one kind and name are one node; those without name stay apart.
type node struct {
	kind     string
	name     string
	pos      Position
	values   map[string]value
	children []*node
}

func newNode(kind, name string, pos Position) *node {
	return &node{kind: kind, name: name, pos: pos, values: map[string]value{}}
}

func (n *node) child(kind, name string) *node {
	for _, c := range n.children {
		if c.kind == kind && c.name == name && (name != "" || isList(kind)) {
			return c
		}
	}
	return nil
}

// overlay gives a node in which what top sets replaces what n sets. Neither is changed.
func (n *node) overlay(top *node) *node {
	out := newNode(n.kind, n.name, n.pos)
	if n.pos.File == "" {
		out.pos = top.pos
	}
	for k, v := range n.values {
		out.values[k] = v
	}
	for k, v := range top.values {
		out.values[k] = v
	}
	out.children = append(out.children, n.children...)
	for _, c := range top.children {
		replaced := false
		for i, old := range out.children {
			if old.kind == c.kind && old.name == c.name && (c.name != "" || isList(c.kind)) {
				out.children[i] = old.overlay(c)
				replaced = true
				break
			}
		}
		if !replaced {
			out.children = append(out.children, c)
		}
	}
	return out
}
