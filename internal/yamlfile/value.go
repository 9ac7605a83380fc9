package yamlfile

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/ocisync/ocisync/internal/spell"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads a node into v. what names it in errors.
func (d *decoder) value(n ast.Node, v reflect.Value, what string) error {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(n, v.Elem(), what)
	}
	if n.Type() == ast.NullType {
		if k := v.Kind(); k == reflect.Struct && !isText(v) || k == reflect.Map || k == reflect.Slice {
			return nil // all that is in it may be commented out
		}
		return d.at(n.GetToken(), fmt.Errorf("%s has no value", what), "")
	}
	_, scalar := source(n)
	if v.Type() == durationType || isText(v) && (scalar || !hasKeys(v.Type())) {
		return d.text(n, v, what)
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(n, v, what)
	case reflect.Map:
		return d.dictionary(n, v, what)
	case reflect.Slice:
		return d.list(n, v, what)
	}
	return d.scalar(n, v, what)
}

func isText(v reflect.Value) bool { return v.CanAddr() && v.Addr().Type().Implements(textType) }

// hasKeys reports whether a type is read from keys and values, too, if it reads itself from a text: a short form.
func hasKeys(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for f := range t.Fields() {
		if f.Tag.Get("yaml") != "" {
			return true
		}
	}
	return false
}

// pair is a key of a mapping and its value.
type pair struct {
	key   string
	at    ast.Node
	value ast.Node
}

// pairs returns those of a mapping, in the file's order.
func (d *decoder) pairs(n ast.Node, what string) ([]pair, error) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		return nil, d.wrong(n, what, "keys and their values")
	}
	var all []pair
	for _, mv := range values {
		key, ok := plainText(mv.Key)
		if !ok {
			return nil, d.at(mv.Key.GetToken(), fmt.Errorf("a key of %s is no text", what), "put it in quotes")
		}
		if slices.ContainsFunc(all, func(p pair) bool { return p.key == key }) {
			return nil, d.at(mv.Key.GetToken(), fmt.Errorf("the key %q is there twice", key), "")
		}
		all = append(all, pair{key: key, at: mv.Key, value: mv.Value})
	}
	return all, nil
}

// plainText returns the text of a node that is one.
func plainText(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	}
	return "", false
}

// structure reads a mapping whose keys are the fields of v.
func (d *decoder) structure(n ast.Node, v reflect.Value, what string) error {
	fields, names := map[string]reflect.Value{}, []string{}
	for f := range v.Fields() {
		if name := f.Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = v.FieldByIndex(f.Index)
			names = append(names, name)
		}
	}
	all, err := d.pairs(n, what)
	if err != nil {
		return err
	}
	for _, p := range all {
		field, ok := fields[p.key]
		if !ok {
			return d.at(p.at.GetToken(), fmt.Errorf("%q is no key of %s", p.key, what), meant(p.key, names))
		}
		if err := d.value(p.value, field, strconv.Quote(p.key)); err != nil {
			return err
		}
	}
	return d.validate(n, v, all)
}

// meant advises who wrote a key that there is not.
func meant(key string, names []string) string {
	normal := strings.ToLower(strings.ReplaceAll(key, "_", "-"))
	if near := spell.Nearest(normal, names, 1); len(near) > 0 {
		return near[0]
	}
	return "one of " + strings.Join(names, ", ")
}

// validate asks a Validator.
func (d *decoder) validate(n ast.Node, v reflect.Value, all []pair) error {
	val, ok := v.Addr().Interface().(Validator)
	if !ok {
		return nil
	}
	err := val.Validate()
	if err == nil {
		return nil
	}
	where, hint := first(n), ""
	var k *keyed
	if errors.As(err, &k) {
		hint, where = k.hint, k.find(all, where)
	}
	return d.at(where.GetToken(), err, hint)
}

// find returns the node that a key, or an element of its list, has among all, or otherwise.
func (k *keyed) find(all []pair, otherwise ast.Node) ast.Node {
	i := slices.IndexFunc(all, func(p pair) bool { return p.key == k.key })
	if i < 0 {
		return otherwise
	}
	if seq, ok := all[i].value.(*ast.SequenceNode); ok && k.element >= 0 && k.element < len(seq.Values) {
		return first(seq.Values[k.element])
	}
	if all[i].value.Type() == ast.NullType {
		return all[i].at
	}
	return first(all[i].value)
}

// first returns the node whose token a reader would point to: that of a block mapping is the colon of its first key.
func first(n ast.Node) ast.Node {
	for {
		switch m := n.(type) {
		case *ast.MappingValueNode:
			n = m.Key
		case *ast.MappingNode:
			if m.IsFlowStyle || len(m.Values) == 0 {
				return n
			}
			n = m.Values[0]
		default:
			return n
		}
	}
}

// dictionary reads a mapping with any keys.
func (d *decoder) dictionary(n ast.Node, v reflect.Value, what string) error {
	all, err := d.pairs(n, what)
	if err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range all {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(p.value, e, strconv.Quote(p.key)); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(p.key).Convert(v.Type().Key()), e)
	}
	return nil
}

// list reads a sequence. One value alone is none: what a list of one becomes when a second is added must not matter.
func (d *decoder) list(n ast.Node, v reflect.Value, what string) error {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return d.wrong(n, what, "a list, each element on a line that begins with a dash")
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		if err := d.value(e, out.Index(i), fmt.Sprintf("element %d of %s", i+1, what)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

// source returns a scalar as it is written, and whether it is one.
func source(n ast.Node) (string, bool) {
	if s, ok := plainText(n); ok {
		return s, true
	}
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// text reads what has a form of its own: durations, and types that read themselves.
func (d *decoder) text(n ast.Node, v reflect.Value, what string) error {
	s, ok := source(n)
	if !ok {
		return d.wrong(n, what, "one value")
	}
	if v.Type() == durationType {
		t, err := time.ParseDuration(s)
		if err != nil {
			return d.at(n.GetToken(), fmt.Errorf("%s is no time: %q", what, s), "a number and a unit, as in 90s, 15m or 48h")
		}
		v.SetInt(int64(t))
		return nil
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
		var k *keyed
		hint := ""
		if errors.As(err, &k) {
			hint = k.hint
		}
		return d.at(n.GetToken(), fmt.Errorf("%s: %w", what, err), hint)
	}
	return d.validate(n, v, nil)
}

// scalar reads a text, a truth value or a number, each of which is written as what it is.
func (d *decoder) scalar(n ast.Node, v reflect.Value, what string) error {
	written, one := source(n)
	quoted := "in quotes: " + strconv.Quote(written)
	switch v.Kind() {
	case reflect.String:
		s, ok := plainText(n)
		if !ok && one {
			return d.at(n.GetToken(), fmt.Errorf("%s: want a text, and this is none", what), quoted)
		}
		if !ok {
			return d.wrong(n, what, "a text")
		}
		v.SetString(s)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			return d.wrong(n, what, "true or false")
		}
		v.SetBool(b.Value)
	case reflect.Int, reflect.Int64:
		if _, ok := n.(*ast.IntegerNode); !ok {
			return d.wrong(n, what, "a whole number")
		}
		i, err := strconv.ParseInt(written, 0, v.Type().Bits())
		if err != nil {
			return d.at(n.GetToken(), fmt.Errorf("%s: %s is too large, or no number that is read here", what, written), "")
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(written, 64)
		if !one || err != nil || f != f || f > 1e18 || f < -1e18 {
			return d.wrong(n, what, "a number")
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("yamlfile: %s is of type %s, which is not read", what, v.Type()))
	}
	return nil
}

// wrong says that a value is of another type than wanted.
func (d *decoder) wrong(n ast.Node, what, want string) error {
	return d.at(first(n).GetToken(), fmt.Errorf("%s: want %s, and this is %s", what, want, kind(n)), "")
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys and their values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	}
	return "something else"
}

// capped reads so many bytes of a file and no more, whatever it is.
type capped struct {
	f    *os.File
	left int
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.EOF
	}
	n, err := c.f.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
