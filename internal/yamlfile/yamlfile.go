// Package yamlfile reads configuration files in YAML into Go values, strictly: a key that is not known, a value of the
// wrong type or one that makes no sense is an error that says where in the file it is, shows the place, and names the
// key that may have been meant.
//
// A file is one document. What configurations do not need and readers stumble over is refused: anchors, aliases, merge
// keys and tags. So nothing in a file is longer than it looks, and what is read is bounded by MaxSize.
//
// Decode fills structs by the tag `yaml:"key"` of their fields, maps with keys of type string, slices, pointers, string,
// bool, integers, floats, time.Duration, and whatever implements encoding.TextUnmarshaler; a struct that does, and has
// keys, has two forms.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/ocisync/ocisync/types/errs"
)

// MaxSize bounds a file, in bytes.
const MaxSize = 256 << 10

// maxDepth bounds how deep collections are nested: the parser calls itself for each level.
const maxDepth = 32

// Validator is implemented by structs, or pointers to them, that can say whether they make sense. Decode asks each of
// them when it has been filled, those inside before those around them. The error is shown at the struct, or, when it is
// one of At, at one of its keys.
type Validator interface {
	Validate() error
}

// Error is what is wrong with a file, and where. It wraps its cause, and is an errs.ErrInvalid.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 when the file as a whole is meant
	Source       string // the line, without its end
	Hint         string // what can be done about it, or ""
	Err          error  // what is wrong
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

func (e *Error) Unwrap() []error { return []error{e.Err, errs.ErrInvalid} }

// Excerpt is the line that is at fault and a caret below the place, or "".
func (e *Error) Excerpt() string {
	if e.Line == 0 || strings.TrimSpace(e.Source) == "" {
		return ""
	}
	var pad strings.Builder
	n := 1
	for _, r := range e.Source {
		if n >= e.Column {
			break
		}
		if r != '\t' {
			r = ' '
		}
		pad.WriteRune(r)
		n++
	}
	return e.Source + "\n" + pad.String() + "^"
}

// keyed is an error about one key of a struct.
type keyed struct {
	key     string
	element int // of the key's list; -1 is none in particular
	err     error
	hint    string
}

func (e *keyed) Error() string { return e.err.Error() }
func (e *keyed) Unwrap() error { return e.err }

// At says which key of a struct a Validator's error is about, and what can be done about it, which may be nothing.
func At(key string, err error, hint string) error {
	return &keyed{key: key, element: -1, err: err, hint: hint}
}

// AtElement is At for one element, counted from 0, of the key's list.
func AtElement(key string, element int, err error, hint string) error {
	return &keyed{key: key, element: element, err: err, hint: hint}
}

// ReadFile is Decode of a file of the file system. Errors: those of os.ReadFile beside those of Decode.
func ReadFile(name string, into any) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	raw := make([]byte, 0, 4096)
	buf := bytes.NewBuffer(raw)
	if _, err := buf.ReadFrom(&capped{f: f, left: MaxSize + 1}); err != nil {
		return err
	}
	return Decode(name, buf.Bytes(), into)
}

// Decode reads raw, which name calls in errors, into what into points to, a struct. Values that the file does not have
// stay as they are. Errors: *Error.
func Decode(name string, raw []byte, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic("yamlfile: into must point to a struct")
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff")) // as editors on Windows write it; YAML 1.2, 5.2
	d := &decoder{file: name, raw: bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))}
	body, err := d.parse()
	if err != nil || body == nil {
		return err
	}
	return d.value(body, v.Elem(), "the file")
}

// decoder is one file.
type decoder struct {
	file string
	raw  []byte // with the ends of lines that Unix has
}

// parse returns the document's content, or nil when it has none.
func (d *decoder) parse() (body ast.Node, err error) {
	switch {
	case len(d.raw) > MaxSize:
		return nil, d.whole("the file has more than %d bytes", MaxSize)
	case !utf8.Valid(d.raw):
		return nil, d.whole("the file is not UTF-8")
	case bytes.IndexFunc(d.raw, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) >= 0:
		return nil, d.whole("the file has control characters")
	}
	defer func() { // of the parser, which is not ours; the file is at fault either way
		if p := recover(); p != nil {
			body, err = nil, d.whole("this cannot be read as YAML (%v)", p)
		}
	}()
	tokens := lexer.Tokenize(string(d.raw))
	if err := d.checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, d.syntax(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, d.at(first(doc.Body).GetToken(), errors.New("a second document begins here: want one in a file"), "")
		}
		body = doc.Body
	}
	return body, nil
}

// checkTokens refuses what is nested too deeply before anything calls itself for it, and what is not wanted at all.
func (d *decoder) checkTokens(tokens token.Tokens) error {
	flow, line, entries := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return d.at(t, errors.New("anchors, aliases and merge keys are not taken here"), "write it out; a text that begins with & or * needs quotes")
		case token.TagType, token.DirectiveType:
			return d.at(t, errors.New("tags and directives are not taken here"), "leave it out; a text that begins with ! or % needs quotes")
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			if t.Position.Line != line {
				line, entries = t.Position.Line, 0
			}
			entries++
		case token.InvalidType:
			return d.invalid(t)
		}
		if flow > maxDepth || flow == 0 && entries > maxDepth || t.Position.IndentNum > 8*maxDepth {
			return d.at(t, fmt.Errorf("this is nested deeper than %d levels", maxDepth), "")
		}
	}
	return nil
}

// syntax is what the parser says.
func (d *decoder) syntax(err error) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		return d.whole("%w", err)
	}
	message := e.GetMessage()
	if strings.Contains(message, "already defined") {
		return d.at(e.GetToken(), fmt.Errorf("the key %q is there twice", e.GetToken().Value), "")
	}
	return d.at(e.GetToken(), errors.New(message), "")
}

// invalid is the error of a token that is none. That of a tab does not name it, and nobody sees it.
func (d *decoder) invalid(t *token.Token) error {
	err := d.at(t, errors.New(t.Error), "")
	var e *Error
	if errors.As(err, &e) && strings.Contains(e.Source[:len(e.Source)-len(strings.TrimLeft(e.Source, " \t"))], "\t") {
		e.Err, e.Hint = errors.New("the line begins with a tab"), "spaces, of which YAML's indentation is made"
	}
	return err
}

// whole is an error about no place in particular.
func (d *decoder) whole(format string, args ...any) error {
	return &Error{File: d.file, Err: fmt.Errorf(format, args...)}
}

// at is an error about the place of a token.
func (d *decoder) at(t *token.Token, err error, hint string) error {
	e := &Error{File: d.file, Err: err, Hint: hint}
	if t == nil || t.Position == nil {
		return e
	}
	e.Line, e.Column = t.Position.Line, max(t.Position.Column, 1)
	lines := strings.SplitN(string(d.raw), "\n", e.Line+1)
	if e.Line >= 1 && e.Line <= len(lines) {
		e.Source = lines[e.Line-1]
	}
	return e
}
