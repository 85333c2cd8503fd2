package config

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds the file; what is larger is not a configuration.
const maxFileBytes = 4 << 20

// Load reads the file at path and the environment variables in env (as os.Environ
// returns them) and returns the settings that they make, or [Problems] with all that is
// wrong. Variables go before the file, the file goes before defaults. An empty path
// means that there is no file.
//
// A variable is named after its key: MAILCUTOVER_TABLE_REDIS_URL is table.redis.url.
// There are none for what stands in lists. A MAILCUTOVER_ variable that means nothing
// is a problem, like an unknown key; left alone are those that Kubernetes makes for a
// service of that name (_PORT..., _SERVICE_...), those that a password_env names, and
// those of the operator's commands (_CONFIG, _API, _TOKEN, _TOKEN_FILE).
//
// Relative file names are relative to the directory of the file.
//
// Load keeps no state: each call reads everything anew, so it is also the reload.
func Load(path string, env []string) (*Config, error) {
	cfg := Default()
	d := &decoder{bad: make(map[string]bool), env: make(map[string]string)}
	settings := make(map[string]any)
	if path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, Problems{{Value: path, Want: "the name of a file", Hint: err.Error()}}
		}
		cfg.Path, d.dir = abs, filepath.Dir(abs)
		var problems Problems
		if settings, problems = readFile(abs); problems != nil {
			return nil, problems
		}
	}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			d.env[name] = value
		}
	}
	d.overlay(settings)
	d.section("", settings, valueOf(cfg))
	d.unknownVariables()

	c := &checker{decoder: d, cfg: cfg}
	c.check()
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	cfg.Warnings = d.warnings
	return cfg, nil
}

// readFile returns the file's sections, unchecked.
func readFile(path string) (map[string]any, Problems) {
	unreadable := func(err error) Problems {
		return Problems{{Value: path, Want: "a readable file", Hint: err.Error()}}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(errors.Unwrap(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(data) > maxFileBytes {
		return nil, Problems{{Value: path, Want: "a file of at most 4MiB"}}
	}
	return parse(path, data)
}

// parse reads YAML through viper. It looks at the document itself first, for what viper
// would pass over in silence: a second document, keys that differ only in case, and
// sections that are empty.
func parse(path string, data []byte) (map[string]any, Problems) {
	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return map[string]any{}, nil // nothing but comments
	} else if err != nil {
		return nil, notYAML(path, err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, Problems{{Value: path, Want: "one YAML document", Hint: `there is a second one behind "---"`}}
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return map[string]any{}, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, Problems{{Value: path, Want: "sections, such as node: mx.example.org"}}
	}
	var problems Problems
	upperCase("", top, &problems)
	if problems != nil {
		return nil, problems
	}
	// With another delimiter than the dot a key with dots stays one, unknown, key.
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00"))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return nil, notYAML(path, err)
	}
	settings := make(map[string]any, len(top.Content)/2)
	for pair := range slices.Chunk(top.Content, 2) {
		// Not AllSettings: it leaves out empty sections, and a table.redis without keys
		// would be an embedded table.
		settings[pair[0].Value] = v.Get(pair[0].Value)
	}
	return settings, nil
}

func notYAML(path string, err error) Problems {
	text := err.Error()
	if _, after, ok := strings.Cut(text, "yaml: "); ok {
		text = after
	}
	return Problems{{Value: path, Want: "YAML", Hint: strings.ReplaceAll(text, "\n", " ")}}
}

// upperCase adds a problem for each key that has upper-case letters. Viper folds case,
// so that of Node and node one would be dropped.
func upperCase(key string, n *yaml.Node, problems *Problems) {
	switch n.Kind {
	case yaml.MappingNode:
		for pair := range slices.Chunk(n.Content, 2) {
			k := join(key, pair[0].Value)
			if lower := strings.ToLower(pair[0].Value); lower != pair[0].Value {
				*problems = append(*problems, Problem{Key: k, Want: "keys in lower case", Hint: "write " + lower})
			}
			upperCase(k, pair[1], problems)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			upperCase(index(key, i), item, problems)
		}
	}
}
