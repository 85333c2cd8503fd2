package config

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	"go.yaml.in/yaml/v3"
)

// Show returns cfg as a YAML file: secrets as references to where they came from, hashes
// of tokens cut short. With onlyChanged it leaves out what is as the defaults.
func Show(cfg *Config, onlyChanged bool) string {
	root := sectionNode(valueOf(cfg), valueOf(Default()), onlyChanged)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		panic(fmt.Sprintf("config: encode the settings: %v", err)) // nodes of our own making
	}
	return b.String()
}

// sectionNode returns a section; base has the defaults of its keys.
func sectionNode(v, base reflect.Value, onlyChanged bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	add := func(key string, value *yaml.Node) {
		n.Content = append(n.Content, textNode(key), value)
	}
	for f := range fields(v.Type()) {
		fv, fb := v.FieldByIndex(f.Index), base.FieldByIndex(f.Index)
		if f.Type.Kind() == reflect.Pointer {
			if fv.IsNil() {
				continue
			}
			fv, fb = fv.Elem(), defaultsOf(f, base, v)
		}
		switch {
		case onlyChanged && !isSection(fv.Type()) && equal(fv, fb):
		case f.Type == secretType:
			if s := fv.Interface().(Secret); s.file != "" {
				add(f.key+"_file", textNode(s.file))
			} else if s.env != "" {
				add(f.key+"_env", textNode(s.env))
			}
		case isSection(fv.Type()):
			if sub := sectionNode(fv, fb, onlyChanged); len(sub.Content) > 0 {
				add(f.key, sub)
			}
		case fv.Kind() == reflect.Slice:
			add(f.key, listNode(fv, onlyChanged))
		default:
			add(f.key, leafNode(fv))
		}
	}
	return n
}

// defaultsOf returns what a section that may be missing begins with.
func defaultsOf(f field, base, v reflect.Value) reflect.Value {
	if like := f.Tag.Get("like"); like != "" {
		return v.FieldByIndex(fieldNamed(v.Type(), like).Index)
	}
	if b := base.FieldByIndex(f.Index); !b.IsNil() {
		return b.Elem()
	}
	return defaultOf(f.Type.Elem())
}

// defaultOf returns a new value with its defaults.
func defaultOf(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if s, ok := v.Interface().(interface{ setDefaults() }); ok {
		s.setDefaults()
	}
	return v.Elem()
}

func listNode(v reflect.Value, onlyChanged bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if !isSection(v.Type().Elem()) {
		n.Style = yaml.FlowStyle
	}
	for i := range v.Len() {
		if item := v.Index(i); isSection(item.Type()) {
			n.Content = append(n.Content, sectionNode(item, defaultOf(item.Type()), onlyChanged))
		} else {
			n.Content = append(n.Content, leafNode(item))
		}
	}
	return n
}

func leafNode(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: text(v)}
	case reflect.Int:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: text(v)}
	default:
		return textNode(text(v))
	}
}

// textNode returns a string; the tag makes the encoder quote what would read as
// something else.
func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// text returns a single value as it stands in a file.
func text(v reflect.Value) string {
	if v.Type() == durationType {
		return shortDuration(v.Interface().(time.Duration))
	}
	return fmt.Sprint(v.Interface())
}

// equal reports whether two values of a key are the same; an empty list is the same as none.
func equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
