"""What is trained: data, input contract, crops and post-processing of each model.

The `input` and `postprocess` blocks are copied into model.json; the worker reads them there.
"""
NORMALISATION = {"kind": "percentile", "low": 1.0, "high": 99.8, "clipMin": 0.0, "clipMax": 1.0, "minRange": 0}

MODELS = {
    "nuclei": {
        "title": "Cell nuclei", "version": "2.2.0",
        "description": "Finds single nuclei in fluorescence images, stained tissue sections and bright-field "
                       "images, also where they touch.",
        "data": ["dsb2018", "bbbc039"],
        # nuclei of 10 px and gaps of 1 px between them are seen better at one and a half times the size
        "enlarge": 1.5,
        "input": {"channels": 1, "colour": "grey", "pixelUnit": "native", "scale": {"kind": "native"},
                  "tile": 320, "halo": 32, "divisor": 64, "normalisation": NORMALISATION},
        "postprocess": {"threshold": 0.4, "seedThreshold": 0.1, "smallArea": 200, "smallSeedThreshold": 0.2,
                        "seedMinArea": 12, "minArea": 20, "distSigma": 0.8, "minConfidence": 0.65,
                        "maxHoleArea": 10},
        "recipe": {
            "batch": 6, "crop": 224, "lr": 2.5e-3, "contact_weight": 3, "distance_weight": 5,
            "votes": True, "vote_weight": 2, "dim_objects": 0.25, "small_weight": 2, "small_radius": 10,
            "shares": {"fluorescence": 0.64, "histology": 0.14, "brightfield": 0.02, "bbbc039": 0.20},
            # around `enlarge`, the scale at which the worker has the network look
            "zoom": {"default": (1.0, 2.0)},
            "prefer_contact": 0.6,
            # Small crops give many different scenes, but the network gets used to an edge being
            # near everywhere and then fails inside big images; so the last part has bigger ones.
            "late": {"from": 0.6, "batch": 3, "crop": 320},
        },
    },
    "phase_contrast": {
        "title": "Cells in phase contrast",
        "description": "Finds single spread cells in phase contrast images, also where they touch.",
        "data": ["usiigaci"],
        # half the size is enough for an outline and shows the network a whole cell at once
        "input": {"channels": 1, "colour": "grey", "pixelUnit": "native",
                  "scale": {"kind": "fit_long_side", "px": 512, "upscale": False},
                  "tile": 512, "halo": 64, "divisor": 32, "normalisation": NORMALISATION},
        "postprocess": {"threshold": 0.5, "seedThreshold": 0.3, "seedMinArea": 100, "minArea": 150,
                        "distSigma": 4.0, "maxHoleArea": 50},
        "recipe": {
            "batch": 5, "crop": 256, "lr": 2.5e-3, "contact_weight": 3, "distance_weight": 5,
            "votes": True, "vote_weight": 2,
            "shares": {"usiigaci": 1.0},
            "zoom": {"default": (0.6, 1.6)},
            "prefer_contact": 0.4,
        },
    },
    "spheroid": {
        "title": "Spheroids and organoids", "version": "1.1.0",
        "description": "Finds spheroids in bright-field images, one per well or many per slide, and the bright "
                       "mass of fluorescent spheroids; neighbours that touch are separated.",
        "data": ["spheroid_single", "spheroid_many", "spheroid_fluo"],
        "input": {"channels": 1, "colour": "grey", "pixelUnit": "native",
                  "scale": {"kind": "fit_long_side", "px": 1024, "upscale": False},
                  "tile": 1024, "halo": 64, "divisor": 32, "normalisation": NORMALISATION},
        # 75 px would find more pieces of fluorescent spheroids, but a dark rim alone gives spots of 90 px
        "postprocess": {"threshold": 0.4, "seedThreshold": 0.5, "seedMinArea": 10, "minArea": 100,
                        "distSigma": 3.0, "maxHoleArea": 100},
        "recipe": {
            "batch": 6, "crop": 256, "lr": 3e-3, "contact_weight": 3, "distance_weight": 5,
            "shares": {"spheroid_single": 0.38, "spheroid_many": 0.44, "spheroid_fluo": 0.18},
            "zoom": {"default": (0.6, 2.2), "spheroid_single": (0.6, 4.5), "spheroid_fluo": (0.35, 1.2)},
            "empty": {"spheroid_single": 0.15},
            # chance of a dark rim, chance of a scale bar
            "clutter": {"spheroid_single": (0.5, 0.06), "spheroid_many": (0.15, 0.15), "spheroid_fluo": (0.0, 0.15)},
        },
    },
}
