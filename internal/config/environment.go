package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Prefix begins the names of all our environment variables.
const Prefix = "MAILCUTOVER_"

// commandVariables are read by the operator's commands, not by a node: the file of
// settings, the address of the API and the token for it.
var commandVariables = []string{Prefix + "CONFIG", Prefix + "API", Prefix + "TOKEN", Prefix + "TOKEN_FILE"}

// Variables returns the keys that can be set by environment variables, by the
// variables' names.
func Variables() map[string]string {
	names := make(map[string]string)
	collectVariables(reflect.TypeFor[Config](), "", names)
	return names
}

func collectVariables(t reflect.Type, section string, names map[string]string) {
	add := func(name string) {
		key := join(section, name)
		names[Prefix+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))] = key
	}
	for f := range fields(t) {
		ft := f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch {
		case ft == secretType:
			add(f.key + "_file")
			add(f.key + "_env")
		case isSection(ft):
			collectVariables(ft, join(section, f.key), names)
		case ft.Kind() != reflect.Slice:
			add(f.key)
		}
	}
}

// overlay puts the variables into the file's settings.
func (d *decoder) overlay(settings map[string]any) {
	for name, key := range Variables() {
		text, ok := d.env[name]
		if !ok {
			continue
		}
		path := strings.Split(key, ".")
		m := settings
		for _, section := range path[:len(path)-1] {
			if m[section] == nil {
				m[section] = make(map[string]any)
			}
			// What is not a section here is a problem that decoding reports.
			if m, ok = m[section].(map[string]any); !ok {
				break
			}
		}
		if m != nil {
			m[path[len(path)-1]] = variable(text)
		}
	}
}

// unknownVariables reports variables that look like ours and mean nothing.
func (d *decoder) unknownVariables() {
	names := Variables()
	known := slices.Concat(slices.Sorted(maps.Keys(names)), commandVariables, d.passwordVariables)
	for _, name := range slices.Sorted(maps.Keys(d.env)) {
		rest, ours := strings.CutPrefix(name, Prefix)
		kubernetes := strings.HasPrefix(rest, "SERVICE_") || rest == "PORT" || strings.HasPrefix(rest, "PORT_")
		if !ours || kubernetes || slices.Contains(known, name) {
			continue
		}
		p := Problem{Key: name, Want: "an environment variable that means something", Hint: "what stands in lists is set in the file"}
		if near := nearest(name, known); near != "" {
			p.Hint = "did you mean " + near + "?"
			d.bad[names[near]] = true
		}
		d.problem(p)
	}
}
