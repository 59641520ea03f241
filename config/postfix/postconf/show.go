package postconf

import (
	"maps"
	"slices"

	"postilion/config/postfix"
)

// showMain lists parameters of main.cf.
func (r *run) showMain() error {
	builtin, service, user, err := r.classes()
	if err != nil {
		return err
	}
	if err := r.load(true); err != nil {
		return err
	}
	if !r.has('d') {
		if err := r.follow(); err != nil {
			return err
		}
	}
	selected := func(name string) bool {
		switch p, known := r.config.Parameter(name); {
		case known && p.Past:
			return user && r.config.View().IsSet(name)
		case known && p.Prefix != "":
			return service
		case known:
			return builtin
		}
		return user && r.usage != nil && r.usage.User[name]
	}
	known := func(name string) bool {
		if _, ok := r.config.Parameter(name); ok {
			return true
		}
		return r.usage != nil && r.usage.User[name]
	}
	names := r.arguments
	if len(names) == 0 {
		all := map[string]bool{}
		for _, name := range r.config.Names() {
			all[name] = true
		}
		if r.usage != nil {
			maps.Copy(all, r.usage.User)
		}
		names = slices.Sorted(maps.Keys(all))
	}
	for _, name := range names {
		if !known(name) {
			r.warn("%s: unknown parameter", name)
			continue
		}
		if len(r.arguments) == 0 && !selected(name) {
			continue
		}
		if err := r.showParameter(name); err != nil {
			return err
		}
	}
	if !r.has('d') {
		r.flagUnused(true)
	}
	return nil
}

func (r *run) showParameter(name string) error {
	view := r.config.View()
	value, _, set := view.Raw(name)
	if r.has('n') && (!set || postfix.ReadOnly(name)) {
		return nil
	}
	p, known := r.config.Parameter(name)
	if r.has('d') && known {
		value = r.defaultOf(p, value)
	}
	if r.has('x') && !(known && p.Raw) {
		var err error
		if value, err = r.expand(view, value); err != nil {
			return err
		}
	}
	r.printNamed(name, value)
	return nil
}

// defaultOf gives a default also where the command itself sets the parameter.
func (r *run) defaultOf(p *postfix.Parameter, value string) string {
	if p.Name == "config_directory" {
		return DefaultDir
	}
	if p.Dynamic {
		return value
	}
	return p.Default
}

func (r *run) expand(view *postfix.View, text string) (string, error) {
	value, err := view.Expand(text)
	if err != nil {
		r.warn("%v", err)
		return "", fatalf("macro processing error")
	}
	return value, nil
}

// printNamed prints "name = value", or one side of it.
func (r *run) printNamed(name, value string) {
	switch {
	case r.has('h'):
		r.printWords(value)
	case r.has('H'):
		r.printWords(name)
	default:
		r.printWords(name + " = " + value)
	}
}
