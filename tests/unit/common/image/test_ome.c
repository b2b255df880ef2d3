/* The part of OME-XML that is read, and what is refused. */
#include "tests/unit/support/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "common/image/ome.h"

static bool parse(const char *xml, ome_t *o) {
    return ome_parse(xml, strlen(xml), 16, o);
}

static void reads_sizes_order_and_blocks(void **state) {
    (void)state;
    ome_t o;
    assert_true(
        parse("<?xml version='1.0'?><o:OME xmlns:o='urn:x'><o:Image><o:Pixels DimensionOrder='XYTZC' SizeC='2' "
              "SizeZ='3' SizeT='4' PhysicalSizeX='650' PhysicalSizeXUnit='nm'><o:Channel SamplesPerPixel='1'/>"
              "<o:TiffData IFD='5' FirstC='1' FirstZ='2' FirstT='3' PlaneCount='2'/><o:TiffData/></o:Pixels>"
              "</o:Image><o:Image><o:Pixels SizeC='9' PhysicalSizeX='7'><o:TiffData/></o:Pixels></o:Image></o:OME>",
              &o));
    assert_string_equal(o.order, "XYTZC");
    assert_int_equal(o.size_c, 2);
    assert_int_equal(o.size_z, 3);
    assert_int_equal(o.size_t_, 4);
    assert_float_equal(o.pixel_um, 0.65, 1e-12);
    assert_int_equal(o.nblocks, 2); /* those of the first image only */
    assert_int_equal(o.blocks[0].ifd, 5);
    assert_int_equal(o.blocks[0].t, 3);
    assert_int_equal(o.blocks[0].planes, 2);
    assert_false(o.blocks[1].has_ifd);
    ome_free(&o);
}

static void leaves_out_planes_of_other_files(void **state) {
    (void)state;
    ome_t o;
    assert_true(
        parse("<OME UUID='urn:uuid:a'><Image><Pixels SizeC='2'><TiffData IFD='0'><UUID FileName='a'>urn:uuid:a</UUID>"
              "</TiffData><TiffData IFD='0' FirstC='1'><UUID FileName='b'> urn:uuid:b </UUID></TiffData></Pixels>"
              "</Image></OME>",
              &o));
    assert_int_equal(o.nblocks, 1);
    assert_int_equal(o.blocks[0].c, 0);
    ome_free(&o);
}

static void accepts_latin1_and_text_behind_the_end(void **state) {
    (void)state;
    ome_t o;
    assert_true(parse(
        "<?xml version='1.0' encoding='UTF-8'?><OME><Pixels PhysicalSizeX='2' PhysicalSizeXUnit='\xb5m'/></OME>", &o));
    assert_float_equal(o.pixel_um, 2, 0);
    ome_free(&o);
    assert_true(parse("<OME><Pixels SizeC='2'/></OME>\nmore", &o));
    assert_int_equal(o.size_c, 2);
    ome_free(&o);
}

static void refuses_entities_depth_and_nonsense(void **state) {
    (void)state;
    ome_t o;
    static const char *const wrong[] = {
        "",
        "<OME>",
        "<OME><Pixels SizeC='0'/></OME>",
        "<OME><Pixels SizeC='-1'/></OME>",
        "<OME><Pixels SizeC='3x'/></OME>",
        "<OME><Pixels SizeT='99999999999'/></OME>",
        "<OME/>",
        "<!DOCTYPE OME [<!ENTITY a 'b'>]><OME><Pixels SizeC='2'>&a;</Pixels></OME>",
        "<!DOCTYPE OME [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><OME><Pixels SizeC='2'>&a;</Pixels></OME>",
        "<OME><Pixels SizeC='2'>",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(parse(wrong[i], &o));
        ome_free(&o);
    }
    char deep[100 * 3 + 64] = "<OME><Pixels SizeC='2'>";
    for (int i = 0; i < 100; i++) {
        strncat(deep, "<a>", sizeof deep - strlen(deep) - 1);
    }
    assert_false(parse(deep, &o));
    ome_free(&o);
    char many[2048] = "<OME><Pixels SizeC='2'>";
    for (int i = 0; i < 20; i++) { /* more than the 16 that are allowed */
        strncat(many, "<TiffData IFD='1'/>", sizeof many - strlen(many) - 1);
    }
    assert_false(parse(many, &o));
    assert_true(o.nblocks <= 16);
    ome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_sizes_order_and_blocks),
        cmocka_unit_test(leaves_out_planes_of_other_files),
        cmocka_unit_test(accepts_latin1_and_text_behind_the_end),
        cmocka_unit_test(refuses_entities_depth_and_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
