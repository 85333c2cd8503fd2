package redismodel

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	lua "github.com/yuin/gopher-lua"
	luaparse "github.com/yuin/gopher-lua/parse"
)

// compiled scripts, by sha1: they are the same for all servers of all runs.
var compiled sync.Map

func compile(sha, text string) (*lua.FunctionProto, error) {
	if p, found := compiled.Load(sha); found {
		return p.(*lua.FunctionProto), nil
	}
	chunk, err := luaparse.Parse(strings.NewReader(text), "user_script")
	if err != nil {
		return nil, err
	}
	p, err := lua.Compile(chunk, "user_script")
	if err == nil {
		compiled.Store(sha, p)
	}
	return p, err
}

func sha1Hex(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func cmdScript(c *call) any {
	switch strings.ToUpper(c.args[1]) {
	case "LOAD":
		if len(c.args) != 3 {
			return c.arity()
		}
		sha := sha1Hex(c.args[2])
		if _, err := compile(sha, c.args[2]); err != nil {
			return failure("ERR Error compiling script (new function): " + firstLine(err))
		}
		c.scripts[sha] = c.args[2]
		return sha
	case "EXISTS":
		list := []any{}
		for _, sha := range c.args[2:] {
			n := int64(0)
			if _, there := c.scripts[strings.ToLower(sha)]; there {
				n = 1
			}
			list = append(list, n)
		}
		return list
	case "FLUSH":
		clear(c.scripts)
		return ok
	}
	return failure("ERR unknown subcommand '" + c.args[1] + "'. Try SCRIPT HELP.")
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func cmdEval(c *call) any {
	sha := sha1Hex(c.args[1])
	if _, err := compile(sha, c.args[1]); err != nil {
		return failure("ERR Error compiling script (new function): " + firstLine(err))
	}
	c.scripts[sha] = c.args[1]
	return c.eval(sha)
}

func cmdEvalSHA(c *call) any {
	sha := strings.ToLower(c.args[1])
	if _, there := c.scripts[sha]; !there {
		return failure("NOSCRIPT No matching script. Please use EVAL.")
	}
	return c.eval(sha)
}

// eval runs a script that is known.
func (c *call) eval(sha string) any {
	n, err := strconv.Atoi(c.args[2])
	switch {
	case err != nil:
		return notInteger
	case n > len(c.args)-3:
		return failure("ERR Number of keys can't be greater than number of args")
	case n < 0:
		return failure("ERR Number of keys can't be negative")
	}
	proto, err := compile(sha, c.scripts[sha])
	if err != nil {
		return failure("ERR " + firstLine(err))
	}
	l := c.interpreter()
	l.SetGlobal("KEYS", texts(l, c.args[3:3+n]))
	l.SetGlobal("ARGV", texts(l, c.args[3+n:]))
	c.running = c
	defer func() { c.running = nil }()
	l.Push(l.NewFunctionFromProto(proto))
	if err := l.PCall(0, 1, nil); err != nil {
		l.SetTop(0)
		return scriptError(err, sha)
	}
	answer := fromLua(l.Get(-1))
	l.SetTop(0)
	return answer
}

func scriptError(err error, sha string) failure {
	if e, is := err.(*lua.ApiError); is {
		if t, is := e.Object.(*lua.LTable); is {
			if text, is := t.RawGetString("err").(lua.LString); is {
				return failure(string(text) + " script: " + sha + ", on @user_script:1.")
			}
		}
	}
	return failure("ERR " + firstLine(err) + " script: " + sha + ", on @user_script:1.")
}

func texts(l *lua.LState, list []string) *lua.LTable {
	t := l.CreateTable(len(list), 0)
	for _, s := range list {
		t.Append(lua.LString(s))
	}
	return t
}

// interpreter returns the server's Lua.
func (s *Server) interpreter() *lua.LState {
	if s.lua != nil {
		return s.lua
	}
	l := lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: 64, RegistrySize: 1024 * 4})
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString, lua.MathLibName: lua.OpenMath,
	} {
		l.Push(l.NewFunction(open))
		l.Push(lua.LString(name))
		l.Call(1, 0)
	}
	l.SetField(l.GetGlobal("string"), "match", l.NewFunction(luaMatch))
	for _, name := range []string{"print", "dofile", "loadfile", "require", "module"} {
		l.SetGlobal(name, lua.LNil)
	}
	t := l.NewTable()
	l.SetField(t, "call", l.NewFunction(func(l *lua.LState) int { return s.luaCall(l, true) }))
	l.SetField(t, "pcall", l.NewFunction(func(l *lua.LState) int { return s.luaCall(l, false) }))
	l.SetField(t, "error_reply", l.NewFunction(func(l *lua.LState) int {
		t := l.NewTable()
		t.RawSetString("err", lua.LString(strings.TrimPrefix(l.CheckString(1), "-")))
		l.Push(t)
		return 1
	}))
	l.SetField(t, "status_reply", l.NewFunction(func(l *lua.LState) int {
		t := l.NewTable()
		t.RawSetString("ok", lua.LString(l.CheckString(1)))
		l.Push(t)
		return 1
	}))
	l.SetField(t, "sha1hex", l.NewFunction(func(l *lua.LState) int {
		l.Push(lua.LString(sha1Hex(l.CheckString(1))))
		return 1
	}))
	l.SetField(t, "log", l.NewFunction(func(l *lua.LState) int { return 0 }))
	for i, level := range []string{"LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"} {
		l.SetField(t, level, lua.LNumber(i))
	}
	l.SetGlobal("redis", t)
	openJSON(l)
	s.lua, s.words = l, map[status]lua.LValue{}
	return l
}

// luaCall is redis.call, or with raise off redis.pcall.
func (s *Server) luaCall(l *lua.LState, raise bool) int {
	n := l.GetTop()
	args := make([]string, n)
	for i := range n {
		switch v := l.Get(i + 1).(type) {
		case lua.LString:
			args[i] = string(v)
		case lua.LNumber:
			args[i] = number(float64(v))
		default:
			l.RaiseError("Lua redis lib command arguments must be strings or integers")
		}
	}
	if n == 0 {
		l.RaiseError("Please specify at least one argument for this redis.call() call")
	}
	outer := s.running
	answer := s.do(&call{Server: s, session: outer.session, args: args, nested: true, script: true})
	if err, is := answer.(error); is {
		t := l.NewTable()
		t.RawSetString("err", lua.LString(err.Error()))
		if raise {
			l.Error(t, 0)
		}
		l.Push(t)
		return 1
	}
	if word, is := answer.(status); is { // scripts don't alter it: one for all
		if s.words[word] == nil {
			s.words[word] = toLua(l, answer)
		}
		l.Push(s.words[word])
		return 1
	}
	l.Push(toLua(l, answer))
	return 1
}

// number writes a number as Redis does when a script hands it to a command.
func number(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1<<62 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', 17, 64)
}

func toLua(l *lua.LState, r any) lua.LValue {
	list := func(items []any) lua.LValue {
		t := l.CreateTable(len(items), 0)
		for i, item := range items {
			t.RawSetInt(i+1, toLua(l, item))
		}
		return t
	}
	switch r := r.(type) {
	case nil, nullArray:
		return lua.LFalse
	case status:
		t := l.NewTable()
		t.RawSetString("ok", lua.LString(r))
		return t
	case error:
		t := l.NewTable()
		t.RawSetString("err", lua.LString(r.Error()))
		return t
	case int64:
		return lua.LNumber(r)
	case string:
		return lua.LString(r)
	case verbatim:
		return lua.LString(r)
	case []any:
		return list(r)
	case pairs:
		return list(r)
	case readReply:
		streams := make([]any, 0, len(r)/2)
		for i := 0; i < len(r); i += 2 {
			streams = append(streams, []any(r[i:i+2]))
		}
		return list(streams)
	}
	panic(fmt.Sprintf("redismodel: answer of type %T to a script", r))
}

func fromLua(v lua.LValue) any {
	switch v := v.(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return int64(v)
	case lua.LBool:
		if v {
			return int64(1)
		}
		return nil
	case *lua.LTable:
		if text, is := v.RawGetString("err").(lua.LString); is {
			return failure(text)
		}
		if text, is := v.RawGetString("ok").(lua.LString); is {
			return status(text)
		}
		list := []any{}
		for i := 1; ; i++ {
			item := v.RawGetInt(i)
			if item == lua.LNil {
				return list
			}
			list = append(list, fromLua(item))
		}
	}
	return nil
}
