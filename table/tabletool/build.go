package tabletool

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"postilion/table"
)

// build makes an index from its source, or with -i adds standard input to it.
func (c *command) build(spec string) error {
	kind, name, _ := strings.Cut(spec, ":")
	suffix, ok := table.IndexSuffix(kind)
	if !ok {
		return cannotBuild(kind, name)
	}
	var source io.Reader = c.in.Stdin
	var info fs.FileInfo
	modified := time.Now()
	if !c.set['i'] {
		file, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, table.SystemError(err))
		}
		defer file.Close()
		if info, err = file.Stat(); err != nil {
			return err
		}
		if info.IsDir() {
			return fmt.Errorf("not a regular file: %s", name)
		}
		source, modified = file, info.ModTime()
	} else if info, _ = os.Stat(name); info != nil {
		modified = info.ModTime()
	}
	if c.set['p'] {
		info = nil
	}
	return c.write(name, name+suffix, source, info, modified)
}

func (c *command) write(name, path string, source io.Reader, model fs.FileInfo, modified time.Time) error {
	unlock, err := table.LockIndex(path)
	if err != nil {
		return err
	}
	defer unlock()
	index := table.NewIndex()
	if c.set['i'] {
		index, err = table.LoadIndex(path)
		if errors.Is(err, fs.ErrNotExist) {
			index, err = table.NewIndex(), nil
		} else if err == nil && model == nil && !c.set['p'] {
			model, err = os.Stat(path)
		}
		if err != nil {
			return err
		}
	}
	options := c.tableOptions()
	options.Aliases = c.aliases
	err = table.ReadRecords(source, name, "", &options, func(r table.Record) error {
		return c.put(index, path, r)
	})
	if err != nil {
		return err
	}
	if c.aliases {
		index.Put("@", "@", 0)
		index.Put("YP_LAST_MODIFIED", strconv.FormatInt(modified.Unix(), 10), 0)
		index.Put("YP_MASTER_NAME", c.masterName(), 0)
	}
	return index.Save(path, model)
}

func (c *command) masterName() string {
	if name := c.parameter("myhostname", ""); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// put adds an entry. What happens to a key that is there already is what -r and -w say.
func (c *command) put(index *table.Index, path string, r table.Record) error {
	if _, double := index.Get(r.Key); double && !c.set['r'] {
		if !c.set['w'] {
			c.warn(fmt.Sprintf("%s: duplicate entry: \"%s\"", path, table.Printable(r.Key)))
		}
		return nil
	}
	if c.set['F'] {
		content, _, err := table.ReadFiles(r.Value, "")
		if err != nil {
			return fmt.Errorf("line %d: %w", r.Line, err)
		}
		r.Value = base64.StdEncoding.EncodeToString([]byte(content))
	}
	index.Put(r.Key, r.Value, r.Line)
	return nil
}

func cannotBuild(kind, name string) error {
	switch {
	case kind == "static" || kind == "fail":
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("open %s: %w", name, table.SystemError(err))
		}
	case !slices.Contains(table.Types(), kind):
		return fmt.Errorf("unsupported dictionary type: %s. Is the postfix-%s package installed?", kind, kind)
	}
	//lint:ignore ST1005 the text is what scripts see
	return fmt.Errorf("unsupported dictionary type: %s does not support bulk-mode creation.", kind)
}
