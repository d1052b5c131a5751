/* C++ type names as files spell them: fundamental types and template arguments. */
#include "root_internal.h"

#include <ctype.h>

int sap_kind_of_type(const char *type_name) {
    static const struct {
        const char *name;
        int kind;
    } types[] = {
        {"bool", SAP_KIND_BOOL},
        {"Bool_t", SAP_KIND_BOOL},
        {"char", SAP_KIND_CHAR},
        {"Char_t", SAP_KIND_CHAR},
        {"signed char", SAP_KIND_CHAR},
        {"int8_t", SAP_KIND_CHAR},
        {"unsigned char", SAP_KIND_UCHAR},
        {"UChar_t", SAP_KIND_UCHAR},
        {"Byte_t", SAP_KIND_UCHAR},
        {"uint8_t", SAP_KIND_UCHAR},
        {"byte", SAP_KIND_UCHAR},
        {"short", SAP_KIND_SHORT},
        {"short int", SAP_KIND_SHORT},
        {"Short_t", SAP_KIND_SHORT},
        {"Version_t", SAP_KIND_SHORT},
        {"int16_t", SAP_KIND_SHORT},
        {"unsigned short", SAP_KIND_USHORT},
        {"unsigned short int", SAP_KIND_USHORT},
        {"UShort_t", SAP_KIND_USHORT},
        {"uint16_t", SAP_KIND_USHORT},
        {"int", SAP_KIND_INT},
        {"Int_t", SAP_KIND_INT},
        {"int32_t", SAP_KIND_INT},
        {"unsigned int", SAP_KIND_UINT},
        {"unsigned", SAP_KIND_UINT},
        {"UInt_t", SAP_KIND_UINT},
        {"uint32_t", SAP_KIND_UINT},
        {"long", SAP_KIND_LONG},
        {"long int", SAP_KIND_LONG},
        {"Long_t", SAP_KIND_LONG},
        {"unsigned long", SAP_KIND_ULONG},
        {"ULong_t", SAP_KIND_ULONG},
        {"size_t", SAP_KIND_ULONG},
        {"long long", SAP_KIND_LONG64},
        {"Long64_t", SAP_KIND_LONG64},
        {"int64_t", SAP_KIND_LONG64},
        {"unsigned long long", SAP_KIND_ULONG64},
        {"ULong64_t", SAP_KIND_ULONG64},
        {"uint64_t", SAP_KIND_ULONG64},
        {"float", SAP_KIND_FLOAT},
        {"Float_t", SAP_KIND_FLOAT},
        {"double", SAP_KIND_DOUBLE},
        {"Double_t", SAP_KIND_DOUBLE},
        {"Axis_t", SAP_KIND_DOUBLE},
        {"Stat_t", SAP_KIND_DOUBLE},
        {"Double32_t", SAP_KIND_DOUBLE32},
        {"Float16_t", SAP_KIND_FLOAT16},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type_name, types[i].name) == 0)
            return types[i].kind;
    return -1;
}

static sap_span trim(sap_span s) {
    static const char *const prefixes[] = {"const ", "struct ", "class ", "std::", "__1::"};
    for (bool again = true; again;) {
        again = false;
        while (s.length && isspace((unsigned char)s.text[0]))
            s.text++, s.length--;
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
            size_t n = strlen(prefixes[i]);
            if (s.length > n && strncmp(s.text, prefixes[i], n) == 0) {
                s.text += n;
                s.length -= n;
                again = true;
            }
        }
    }
    while (s.length && isspace((unsigned char)s.text[s.length - 1]))
        s.length--;
    return s;
}

int sap_type_split(const char *type_name, sap_span *base, sap_span *arguments, int capacity) {
    sap_span all = trim((sap_span){type_name, strlen(type_name)});
    *base = all;
    const char *open = memchr(all.text, '<', all.length);
    if (!open || all.text[all.length - 1] != '>')
        return 0;
    base->length = (size_t)(open - all.text);
    *base = trim(*base);
    int count = 0, depth = 0;
    const char *start = open + 1, *end = all.text + all.length - 1;
    for (const char *p = start; p <= end; p++) {
        bool last = p == end;
        if (!last && (*p == '<' || *p == '('))
            depth++;
        if (!last && (*p == '>' || *p == ')'))
            depth--;
        if (last || (*p == ',' && depth == 0)) {
            if (count < capacity)
                arguments[count] = trim((sap_span){start, (size_t)(p - start)});
            count++;
            start = p + 1;
        }
    }
    return count < capacity ? count : capacity;
}
