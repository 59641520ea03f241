package imap

// SortKey is one criterion of SORT.
type SortKey struct {
	// Name is in capitals.
	Name    string
	Reverse bool
}

// Sort is RFC 5256's SORT with RFC 5267's result options and RFC 5957's display names.
func Sort() Extension {
	return Extension{Commands: []CommandSpec{{Name: "SORT"}, {Name: "UID SORT"}}}
}

// ParseSort reads the arguments of SORT.
func (g *Grammar) ParseSort(args []Arg) ([]SortKey, *Search, error) {
	s := &Search{}
	if len(args) > 0 && args[0].IsAtom("RETURN") {
		if len(args) < 2 || args[1].Kind != List {
			return nil, nil, SyntaxError("SEARCH return options must be a list.")
		}
		if err := s.options(args[1].List); err != nil {
			return nil, nil, err
		}
		args = args[2:]
	}
	if len(args) == 0 || args[0].Kind != List {
		return nil, nil, SyntaxError("Missing sort program.")
	}
	keys, err := sortKeys(args[0].List)
	if err != nil {
		return nil, nil, err
	}
	if len(args) < 2 || !args[1].IsString() {
		return nil, nil, SyntaxError("Missing charset argument.")
	}
	s.Charset = args[1].Upper()
	if len(args) < 3 {
		return nil, nil, SyntaxError("Missing search parameters")
	}
	p := &SearchParser{grammar: g, search: s, args: args[2:]}
	s.Key, err = p.all()
	return keys, s, err
}

const maxSortKeys = 20

func sortKeys(list []Arg) (keys []SortKey, err error) {
	reverse := false
	for i := range list {
		if list[i].Kind != Atom {
			return nil, SyntaxError("Invalid sort list argument.")
		}
		switch name := list[i].Upper(); name {
		case "REVERSE":
			reverse = !reverse
		case "ARRIVAL", "CC", "DATE", "DISPLAYFROM", "DISPLAYTO", "FROM", "SIZE", "SUBJECT", "TO":
			keys = append(keys, SortKey{name, reverse})
			reverse = false
		default:
			return nil, SyntaxError("Unknown sort argument: " + name)
		}
	}
	if len(keys) == 0 || reverse {
		return nil, SyntaxError("Empty sort program.")
	}
	if len(keys) > maxSortKeys {
		return nil, SyntaxError("Too many sort arguments.")
	}
	return keys, nil
}
