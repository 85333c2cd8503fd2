package redismodel

import (
	"encoding/json"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// openJSON gives scripts cjson.decode and cjson.encode.
func openJSON(l *lua.LState) {
	t := l.NewTable()
	null := l.NewUserData()
	l.SetField(t, "null", null)
	l.SetField(t, "decode", l.NewFunction(func(l *lua.LState) int {
		d := json.NewDecoder(strings.NewReader(l.CheckString(1)))
		var v any
		if err := d.Decode(&v); err != nil {
			l.RaiseError("Expected value but found invalid token: %s", err.Error())
		}
		l.Push(jsonToLua(l, v, null))
		return 1
	}))
	l.SetField(t, "encode", l.NewFunction(func(l *lua.LState) int {
		b, err := json.Marshal(luaToJSON(l.Get(1), null))
		if err != nil {
			l.RaiseError("Cannot serialise: %s", err.Error())
		}
		l.Push(lua.LString(b))
		return 1
	}))
	l.SetGlobal("cjson", t)
}

func jsonToLua(l *lua.LState, v any, null lua.LValue) lua.LValue {
	switch v := v.(type) {
	case string:
		return lua.LString(v)
	case float64:
		return lua.LNumber(v)
	case bool:
		return lua.LBool(v)
	case []any:
		t := l.CreateTable(len(v), 0)
		for _, item := range v {
			t.Append(jsonToLua(l, item, null))
		}
		return t
	case map[string]any:
		t := l.CreateTable(0, len(v))
		for k, item := range v {
			t.RawSetString(k, jsonToLua(l, item, null))
		}
		return t
	}
	return null
}

func luaToJSON(v, null lua.LValue) any {
	switch v := v.(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return float64(v)
	case lua.LBool:
		return bool(v)
	case *lua.LTable:
		if n := v.Len(); n > 0 {
			list := make([]any, n)
			for i := range n {
				list[i] = luaToJSON(v.RawGetInt(i+1), null)
			}
			return list
		}
		m := map[string]any{}
		v.ForEach(func(k, item lua.LValue) { m[k.String()] = luaToJSON(item, null) })
		return m
	}
	return nil
}
